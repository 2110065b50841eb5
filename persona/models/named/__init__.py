"""Models that go by a short name: where their bytes come from, fetched once, checked, kept."""
