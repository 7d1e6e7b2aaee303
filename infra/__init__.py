"""What template.yaml deploys, as data and prose; see README.md beside this file."""
