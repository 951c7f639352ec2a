"""Which labels do the predictions of cross-validation contradict?"""
