"""The prfaas command."""
