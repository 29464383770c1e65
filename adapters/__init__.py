"""The dialects: one sans-I/O codec per provider, capability records, the price book."""
