"""Where the ports meet AWS, and memory that stands for it. Nothing outside this folder imports boto3."""
