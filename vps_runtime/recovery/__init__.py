"""The recovery code: made and used on the console, while the runtime is stopped."""
