"""Train networks: recipes, data, the loop, fine-tuning and evaluation. The loop does not need PyAV."""
