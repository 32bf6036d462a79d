# imagend with Mesa's drivers and the default cascade inside. Runs as nobody; it writes to
# /var/cache/imagend (pipeline caches) and /var/lib/imagend (jobs and results) only, so the root file
# system may be read-only.
#
#   docker build -t imagend .
#   docker run --read-only -v imagend-cache:/var/cache/imagend -v imagend-data:/var/lib/imagend \
#       -p 127.0.0.1:8080:8080 imagend
#
# The port is published on this machine only; before publishing it wider, give API keys
# (IMAGEND_KEYS_FILE) and take --allow-open away. A GPU: --device /dev/dri and --group-add of its
# group, or --gpus all with NVIDIA's container toolkit.
# Another model: -v DIR:/models/other -e IMAGEND_MODEL=/models/other.
FROM debian:12-slim AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends gcc g++ meson ninja-build pkg-config glslc libvulkan-dev \
        libjansson-dev libpng-dev libsentencepiece-dev libunistring-dev libuv1-dev \
        libmicrohttpd-dev libgnutls28-dev libsqlite3-dev libjpeg-dev libwebp-dev \
        libcurl4-gnutls-dev zlib1g-dev && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN meson setup --buildtype=release --prefix=/usr --strip -Dtests=false /build . && \
    DESTDIR=/install meson install -C /build --quiet

# libxext6 is for NVIDIA's driver, which comes from the host.
FROM debian:12-slim
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends curl libvulkan1 mesa-vulkan-drivers libjansson4 libpng16-16 \
        libsentencepiece0 libunistring2 libuv1 libmicrohttpd12 libgnutls30 libsqlite3-0 \
        libjpeg62-turbo libwebp7 libcurl3-gnutls zlib1g libxext6 && \
    rm -rf /var/lib/apt/lists/* && \
    install -d -o nobody -g nogroup /var/cache/imagend /var/lib/imagend
COPY --from=build /install/usr/bin/imagend /usr/bin/imagend
COPY --from=build /install/usr/share/imagend /usr/share/imagend
ENV XDG_CACHE_HOME=/var/cache/imagend IMAGEND_DATA_DIR=/var/lib/imagend
ENV NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
# A number, so that an orchestrator can tell that it is not root.
USER 65534:65534
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["curl", "-fs", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["imagend"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--allow-open"]
