"""Object detection and instance segmentation: Mask R-CNN and its parts."""
