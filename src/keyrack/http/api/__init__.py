"""The operations of the API: which there are, and what each of them does."""
