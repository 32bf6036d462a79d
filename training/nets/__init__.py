"""The three kinds of network of the cascade, with the state-dict names of the Hugging Face layout."""
