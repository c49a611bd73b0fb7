"""How good a trained model is: accuracy over steps, halting calibrated, promises checked, pictures."""
