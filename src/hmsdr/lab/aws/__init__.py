"""The lab's AWS API: moto for S3 and hosted zones, and in front of it a layer as strict as Route 53 itself."""
