"""The key gateway against nginx and LiteLLM's proxy: one provider, one client, one run."""
