// Input images from a file, an earlier result or an empty canvas, and the requests that contain
// them. An input is {source, steps, size}, which IndexedDB can store; source is {file}, {job, index}
// or {blank: true}.
import { ask, imagePath } from "./api.js";
import { createPainting, hasTransparency, newCanvas, toBlob } from "./paint.js";
import { fault, sides } from "./words.js";

const SENT = ["image/png", "image/jpeg", "image/webp"];

// The server's limits for input images, and the largest size that it generates.
export const limits = { edge: 8192, bytes: Infinity, output: { edge: Infinity, pixels: Infinity } };

async function decode(blob) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
  } catch {
    throw fault("the browser cannot read this file as an image; use a PNG, JPEG or WebP file");
  } finally {
    URL.revokeObjectURL(image.src);
  }
  if (Math.max(image.naturalWidth, image.naturalHeight) > limits.edge)
    throw fault("the image has " + image.naturalWidth + " × " + image.naturalHeight + " px; make it at most " +
      limits.edge + " px wide and high");
  return image;
}

async function fileOf(source) {
  if (source.file) return source.file;
  try {
    return await (await ask("GET", imagePath(source.job, source.index))).blob();
  } catch (error) {
    throw error.status === 404
      ? fault("the server has deleted this image; use an image that it still has, or a file") : error;
  }
}

export async function openInput(input) {
  if (input.source.blank) return createPainting(null, ...sides(input.size), input.steps);
  const file = await fileOf(input.source), image = await decode(file);
  const steps = input.steps ||
    (hasTransparency(image) ? [{ layer: "mark", kind: "transparent" }] : []);
  return Object.assign(createPainting(image, image.naturalWidth, image.naturalHeight, steps), { file });
}

// Converts a file to a format that the server reads.
export async function sourceOf(file) {
  const megabytes = (n) => Math.round(n / 1e5) / 10 + " MB";
  if (file.size > limits.bytes)
    throw fault("the file has " + megabytes(file.size) + ", but the server accepts at most " +
      megabytes(limits.bytes) + "; make the image smaller, or save it as JPEG");
  const image = await decode(file);
  if (SENT.includes(file.type)) return { file };
  const canvas = newCanvas(image.naturalWidth, image.naturalHeight);
  canvas.getContext("2d").drawImage(image, 0, 0);
  return { file: await toBlob(canvas) };
}

// Adds the image, and the mask if there are marks, to the fields of a job. Returns the body of the
// request: multipart if it contains a file. Files that the server already has are not sent again.
export async function bodyWith(fields, input, painting, marked) {
  const changed = input.source.blank || painting.has("paint") ||
    (!marked && painting.image && hasTransparency(painting.image));
  const files = {};
  if (changed) files.image = await toBlob(painting.flat(Infinity));
  else if (input.source.file) files.image = input.source.file;
  else fields = { ...fields, image: { job: input.source.job, index: input.source.index } };
  if (marked) {
    files.mask = await toBlob(painting.mask());
    fields = { ...fields, mask_kind: "light" };
  }
  if (files.image) return multipart(fields, files);
  return files.mask ? { ...fields, mask: await dataUrl(files.mask) } : fields;
}

function multipart(fields, files) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields))
    form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  for (const [name, blob] of Object.entries(files)) form.append(name, blob, blob.name || name + ".png");
  return form;
}

function dataUrl(blob) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}
