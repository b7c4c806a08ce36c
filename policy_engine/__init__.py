"""The policy language: text to rules, rules and a world to a decision; imports nothing of ours."""
