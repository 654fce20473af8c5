"""The router: the OpenAI data path and the Decide service."""
