"""Spatiotemporal Pyramid Flows: one flow-matching model from decades to years to months."""
