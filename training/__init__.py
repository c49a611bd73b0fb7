"""Training, evaluation, calibration and export of depth-recurrent models. Letters of shapes: see model/."""
