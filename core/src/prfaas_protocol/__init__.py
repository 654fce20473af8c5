"""The gRPC contracts between operator, router and gateways."""
