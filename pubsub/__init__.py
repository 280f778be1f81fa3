"""zoolog's topics: hubs, durable subscriptions, the command and the local cluster."""
