"""HTTP/1.1 on asyncio protocols: a server for clients and a pooled client for workers."""
