"""The pages of docs/ that are generated.

``python -m streamapp.docs`` writes them, ``--check`` says whether they are true.
"""
