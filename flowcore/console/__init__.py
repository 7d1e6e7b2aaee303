"""What a person meets in a browser: pages that work without JavaScript, and forms drawn from JSON Schemas."""
