"""What several tests share: builders of models, rows, servers and damaged inputs."""
