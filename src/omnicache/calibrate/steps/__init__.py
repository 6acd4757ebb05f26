"""Which steps to compute, and how to get from one to the next: measured at the sampler, solved as a shortest path, fitted."""
