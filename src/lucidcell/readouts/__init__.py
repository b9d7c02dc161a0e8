"""What a trained model says: functions of a model that return arrays and tables."""
