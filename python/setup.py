"""The wheel's tag: an extension of the stable ABI, and binaries loaded through ctypes."""

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class BinaryDistribution(Distribution):
    def has_ext_modules(self):
        return True


class BinaryWheel(bdist_wheel):
    def get_tag(self):
        return "cp311", "abi3", super().get_tag()[2]


setup(distclass=BinaryDistribution, cmdclass={"bdist_wheel": BinaryWheel})
