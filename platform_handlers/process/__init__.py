"""The platform as one process: every handler but the evaluator, the API and the page."""
