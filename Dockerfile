# imagend with Mesa's drivers and the default cascade. Runs as nobody and writes only to
# /var/cache/imagend (pipeline caches) and /var/lib/imagend (jobs and results), so the root file system
# may be read-only.
#
#   docker build -t imagend .
#   docker run --read-only -v imagend-cache:/var/cache/imagend -v imagend-data:/var/lib/imagend \
#       -p 127.0.0.1:8080:8080 imagend
#
# The port is published on this machine only. Before you publish it on other addresses, configure API
# keys (IMAGEND_KEYS_FILE) and remove --allow-open. To use a GPU, add --device /dev/dri and --group-add
# with its group, or --gpus all with NVIDIA's container toolkit.
# To use another model: -v DIR:/models/other -e IMAGEND_MODEL=/models/other.
FROM debian:12-slim AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends gcc g++ meson ninja-build pkg-config glslc libvulkan-dev \
        libjansson-dev libpng-dev libsentencepiece-dev libunistring-dev libuv1-dev \
        libmicrohttpd-dev libgnutls28-dev libsqlite3-dev libjpeg-dev libwebp-dev \
        libcurl4-gnutls-dev libpq-dev zlib1g-dev && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN meson setup --buildtype=release --prefix=/usr --strip -Dtests=false /build . && \
    DESTDIR=/install meson install -C /build --quiet

# NVIDIA's driver, which the host provides, needs libxext6.
FROM debian:12-slim
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends curl libvulkan1 mesa-vulkan-drivers libjansson4 libpng16-16 \
        libsentencepiece0 libunistring2 libuv1 libmicrohttpd12 libgnutls30 libsqlite3-0 \
        libjpeg62-turbo libwebp7 libcurl3-gnutls libpq5 zlib1g libxext6 && \
    rm -rf /var/lib/apt/lists/* && \
    install -d -o nobody -g nogroup /var/cache/imagend /var/lib/imagend
COPY --from=build /install/usr/bin/imagend /usr/bin/imagend
COPY --from=build /install/usr/share/imagend /usr/share/imagend
ENV XDG_CACHE_HOME=/var/cache/imagend IMAGEND_DATA_DIR=/var/lib/imagend
ENV NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
# A numeric id, so that an orchestrator can verify that it is not root.
USER 65534:65534
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["curl", "-fs", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["imagend"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--allow-open"]
