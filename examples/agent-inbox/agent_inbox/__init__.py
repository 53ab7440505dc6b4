"""Agents that answer letters, and a page on which a person approves what they are about to send."""
