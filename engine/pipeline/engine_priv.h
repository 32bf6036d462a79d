// Access to the parts of an engine that tests need beyond engine.h. Not for the product.
#ifndef IMAGEND_ENGINE_PRIV_H
#define IMAGEND_ENGINE_PRIV_H

struct engine;
struct ops_device;

// The engine's device, to inject faults into. Owner: the engine. Thread: the engine's worker.
struct ops_device *engine_device(const struct engine *g);

#endif
