"""The console and the HTTP API: faces only."""
