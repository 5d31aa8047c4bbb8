"""Package metadata comes from settings.ini, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

settings = ConfigParser(delimiters=["="])
settings.read("settings.ini", encoding="utf-8")
config = settings["DEFAULT"]
extras = {name.removesuffix("_requirements"): value.split() for name, value in config.items() if name.endswith("_requirements")}

setup(
    name=config["lib_name"],
    version=config["version"],
    description=config["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=config["author"],
    author_email=config["author_email"],
    url=config["git_url"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=config["keywords"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["alignx", "alignx.*"]),
    package_data={"alignx": ["assets/**/*", "explore/js/*", "evaluate/*.html"]},
    python_requires=f">={config['min_python']}",
    install_requires=config["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": config["console_scripts"].split(), "nbdev": ["alignx=alignx._modidx:d"]},
    zip_safe=False,
)
