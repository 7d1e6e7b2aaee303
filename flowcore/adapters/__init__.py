"""The ports' implementations; the only place that imports boto3."""
