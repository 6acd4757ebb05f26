"""Goals in place of thresholds: find the plan that reaches a speed or a quality, and keep it."""
