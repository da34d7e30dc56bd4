"""Pods: one worker task per pod, the containers it runs, and what is told to the API server about them."""
