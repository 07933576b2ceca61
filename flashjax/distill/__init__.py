"""The mathematics of few-step distillation: arrays and functions only. Imports no model, no data, no mesh."""
