"""glancing keeps an OpenStack Glance catalogue equal to published VM image lists."""

__version__ = "0.1.0"
