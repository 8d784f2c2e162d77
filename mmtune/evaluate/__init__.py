"""Look at data and answers: inspect, compare, scores."""
