"""Random models, schedulers, plans and orders of calls, with the laws as the judge; and faults, put in on purpose."""
