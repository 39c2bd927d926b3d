"""Calibration: banks of people's texts, and what they can vouch for."""
