"""What happens at one account, pure: inputs are decided upon, and become rows, facts, messages and effects.

No I/O, no clock, no chance: whatever runs again with the same rows and inputs says the same bytes (design: desk).
"""
