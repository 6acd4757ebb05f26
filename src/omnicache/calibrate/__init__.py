"""Runs that measure, and the solvers that plan with what they measured."""
