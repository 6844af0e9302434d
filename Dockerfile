# docker build -t repsr .                                                                        for CPUs
# docker build -t repsr --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .         for NVIDIA GPUs
# docker run --rm --network none -v "$PWD:/work" repsr upscale clip.mp4                          (GPUs: --gpus all)
#
# The image needs no CUDA base: the CUDA builds of PyTorch bring their libraries, the host its driver.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/repsr
ENV PATH=/opt/repsr/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt /src/
# First, since it is large and seldom changes.
RUN pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' /src/constraints.txt)"
COPY . /src
RUN pip install --constraint /src/constraints.txt '/src[watch]'

FROM python:${PYTHON}-slim
# What opencv-python links against and a slim image lacks.
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/repsr /opt/repsr
ENV PATH=/opt/repsr/bin:$PATH
RUN useradd --create-home repsr
USER repsr
WORKDIR /work
ENTRYPOINT ["repsr"]
CMD ["--help"]
