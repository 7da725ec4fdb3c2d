"""What is true whatever the protocol or database.

Standard library only; no I/O, no clock, no random. Every other layer may import this one; it imports none of them.
"""
