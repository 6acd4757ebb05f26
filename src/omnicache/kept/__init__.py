"""What outlives a process: results that take long, so that who is interrupted goes on where they were."""
