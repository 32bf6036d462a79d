// An image with strokes: the image, a layer of paint, a layer of marks. The strokes are a list of
// steps, which undo, full-size files and a reloaded page draw again. Lengths are fractions of the
// longer side. Knows nothing about the page.
const WORK = 1024; // longer side of what is shown

export function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function context(canvas) { return canvas.getContext("2d", { willReadFrequently: true }); }

export function toBlob(canvas, type = "image/png") {
  return new Promise((done, fail) => canvas.toBlob((blob) =>
    blob ? done(blob) : fail(new Error("no memory for an image of this size")), type));
}

// ---- one step on its layer --------------------------------------------------------------------

function drawStroke(ctx, step, scale, from = 0) {
  const p = step.points, at = (i) => p[i] * scale;
  ctx.globalCompositeOperation = step.erase ? "destination-out" : "source-over";
  ctx.fillStyle = ctx.strokeStyle = step.colour || "#000";
  ctx.lineWidth = step.size * scale;
  ctx.lineCap = ctx.lineJoin = "round";
  if (from === 0) {
    ctx.beginPath();
    ctx.arc(at(0), at(1), step.size * scale / 2, 0, 7);
    ctx.fill();
  }
  if (p.length < 4) return;
  const start = Math.max(0, from - 2);
  ctx.beginPath();
  ctx.moveTo(at(start), at(start + 1));
  for (let i = start + 2; i < p.length; i += 2) ctx.lineTo(at(i), at(i + 1));
  ctx.stroke();
}

const near = (data, i, wanted) => Math.abs(data[i] - wanted[0]) + Math.abs(data[i + 1] - wanted[1]) +
  Math.abs(data[i + 2] - wanted[2]) + Math.abs(data[i + 3] - wanted[3]) < 96;

// The pixels around x, y of nearly the same color, row by row.
function areaOf(pixels, x, y) {
  const { width, height, data } = pixels;
  const inside = new Uint8Array(width * height), todo = [[x, y]];
  const wanted = data.slice(4 * (y * width + x), 4 * (y * width + x) + 4);
  const open = (at) => !inside[at] && near(data, 4 * at, wanted);
  while (todo.length) {
    const [x0, row] = todo.pop();
    let left = x0, right = x0;
    if (!open(row * width + x0)) continue;
    while (left > 0 && open(row * width + left - 1)) left--;
    while (right < width - 1 && open(row * width + right + 1)) right++;
    inside.fill(1, row * width + left, row * width + right + 1);
    for (const next of [row - 1, row + 1])
      for (let at = left; next >= 0 && next < height && at <= right; at++)
        if (open(next * width + at) && (at === left || !open(next * width + at - 1))) todo.push([at, next]);
  }
  return inside;
}

// Fills an area of one color, including its soft border.
function drawFill(ctx, step, scale, below) {
  const { width, height } = ctx.canvas;
  const seen = newCanvas(width, height), area = newCanvas(width, height);
  const limit = (v, most) => Math.min(most - 1, Math.max(0, Math.floor(v * scale)));
  context(seen).drawImage(below, 0, 0, width, height);
  context(seen).drawImage(ctx.canvas, 0, 0);
  const inside = areaOf(context(seen).getImageData(0, 0, width, height), limit(step.x, width),
    limit(step.y, height));
  const pixels = new ImageData(width, height);
  for (let i = 0; i < inside.length; i++) pixels.data[4 * i + 3] = 255 * inside[i];
  context(area).putImageData(pixels, 0, 0);
  context(area).globalCompositeOperation = "source-in";
  context(area).fillStyle = step.colour;
  context(area).fillRect(0, 0, width, height);
  ctx.globalCompositeOperation = "source-over";
  for (const [dx, dy] of [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) ctx.drawImage(area, dx, dy);
}

function drawAll(ctx, operation) {
  ctx.globalCompositeOperation = operation;
  ctx.fillStyle = "#000";
  ctx.fillRect(0, 0, ctx.canvas.width, ctx.canvas.height);
}

// below: the image, as a canvas or an image element.
function draw(ctx, step, scale, below) {
  switch (step.kind) {
  case "stroke": drawStroke(ctx, step, scale); break;
  case "fill": drawFill(ctx, step, scale, below); break;
  case "clear": ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height); break;
  case "invert": drawAll(ctx, "source-out"); break;
  case "transparent": // the image's own transparent pixels are marked
    drawAll(ctx, "source-over");
    ctx.globalCompositeOperation = "destination-out";
    ctx.drawImage(below, 0, 0, ctx.canvas.width, ctx.canvas.height);
  }
}

// ---- the painting -----------------------------------------------------------------------------

// image: an image element, or null for an empty white canvas.
export function createPainting(image, width, height, steps = []) {
  const longer = Math.max(width, height), shown = Math.max(512, Math.min(WORK, longer));
  const size = (edge) => [width, height].map((side) => Math.max(1, Math.round(side * edge / longer)));
  const layers = { paint: newCanvas(...size(shown)), mark: newCanvas(...size(shown)) };
  const work = newCanvas(...size(shown));
  let done = [...steps], undone = [];

  function drawBase(canvas) {
    const ctx = context(canvas);
    if (!image) {
      ctx.fillStyle = "#fff";
      ctx.fillRect(0, 0, canvas.width, canvas.height);
    } else {
      ctx.imageSmoothingQuality = "high";
      ctx.drawImage(image, 0, 0, canvas.width, canvas.height);
    }
    return canvas;
  }
  // Only steps after the last one that clears the layer matter.
  function drawLayer(canvas, layer, below) {
    const mine = done.filter((step) => step.layer === layer);
    const first = Math.max(0, mine.findLastIndex((step) => step.kind === "clear"));
    context(canvas).clearRect(0, 0, canvas.width, canvas.height);
    for (const step of mine.slice(first)) draw(context(canvas), step, Math.max(canvas.width, canvas.height), below);
    return canvas;
  }
  function redraw(layer) { drawLayer(layers[layer], layer, work); }
  function flatten(canvas, edge) {
    const ctx = context(canvas), base = drawBase(newCanvas(...size(edge)));
    ctx.fillStyle = "#fff";
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.drawImage(base, 0, 0);
    ctx.drawImage(drawLayer(newCanvas(...size(edge)), "paint", base), 0, 0);
    return canvas;
  }
  drawBase(work);
  redraw("paint");
  redraw("mark");

  return {
    image, width, height, work, layers,
    get steps() { return done; },
    get canUndo() { return done.length > 0; },
    get canRedo() { return undone.length > 0; },
    // Adds a step; a stroke may grow afterwards.
    add(step) {
      done.push(step);
      undone = [];
      draw(context(layers[step.layer]), step, shown, work);
    },
    // The points of the newest stroke from this index on are new.
    grow(from) { drawStroke(context(layers[done.at(-1).layer]), done.at(-1), shown, from); },
    undo() {
      const step = done.pop();
      undone.push(step);
      redraw(step.layer);
      return step;
    },
    redo() {
      const step = undone.pop();
      done.push(step);
      redraw(step.layer);
      return step;
    },
    // Whether the layer is not empty.
    has(layer) {
      const { width: w, height: h } = layers[layer];
      const { data } = context(layers[layer]).getImageData(0, 0, w, h);
      for (let i = 3; i < data.length; i += 4) if (data[i] >= 128) return true;
      return false;
    },
    // The painted image without marks, with the longer side at most `edge`.
    flat(edge) { return flatten(newCanvas(...size(Math.min(edge, longer))), Math.min(edge, longer)); },
    // The mask, in the size of the image: white where the image changes.
    mask() {
      const canvas = newCanvas(width, height), ctx = context(canvas);
      ctx.fillStyle = "#fff";
      ctx.drawImage(drawLayer(newCanvas(width, height), "mark", image || newCanvas(width, height)), 0, 0);
      ctx.globalCompositeOperation = "source-in";
      ctx.fillRect(0, 0, width, height);
      ctx.globalCompositeOperation = "destination-over";
      ctx.fillStyle = "#000";
      ctx.fillRect(0, 0, width, height);
      return canvas;
    },
  };
}

export function hasTransparency(image) {
  const canvas = newCanvas(...[image.naturalWidth, image.naturalHeight].map((side) =>
    Math.max(1, Math.round(side * Math.min(1, WORK / Math.max(image.naturalWidth, image.naturalHeight))))));
  context(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context(canvas).getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 3; i < data.length; i += 4) if (data[i] < 128) return true;
  return false;
}
