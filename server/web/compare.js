// The slider between an image and its input image.

// Shows `url` over the left part of the image in `frame`, with a handle. Returns the handle.
function addBefore(frame, url) {
  const before = document.createElement("img"), handle = document.createElement("input");
  before.className = "before";
  before.alt = "";
  before.src = url;
  handle.type = "range";
  handle.className = "handle";
  handle.setAttribute("aria-label", "Before and after");
  handle.oninput = () => {
    frame.style.setProperty("--at", handle.value + "%");
    handle.setAttribute("aria-valuetext", handle.value + " % before");
  };
  frame.append(before, handle);
  handle.value = 50;
  handle.oninput();
  return handle;
}

// url: of the input image, or null to show only the result again.
export function compare(frame, url) {
  for (const part of frame.querySelectorAll(".before, .handle")) part.remove();
  frame.classList.toggle("comparing", Boolean(url));
  return url ? addBefore(frame, url) : null;
}
