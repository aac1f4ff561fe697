"""Measures the other packages on data with known answers; nothing imports it."""
