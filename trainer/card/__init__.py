"""The model card: what must someone know who uses or judges this model?"""
