"""The operators' side over HTTP: `/commands`, and the page for Prometheus (specification 17, 18.1)."""
