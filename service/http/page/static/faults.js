// The server's own sentence at the field that it names.

const find = (id) => document.getElementById(id);

export function clearFaults() {
  for (const line of document.querySelectorAll(".fault.at-field")) line.remove();
  for (const field of document.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
  find("fault").hidden = true;
}

// field: dotted, as in an error of the API, or null. The nearest element that bears a part of it shows it.
export function showFault(field, message) {
  clearFaults();
  const element = holder(field);
  if (!element) {
    find("fault").hidden = false;
    find("fault").textContent = field ? `${field}: ${message}` : message;
    return;
  }
  for (let parent = element.closest("details"); parent; parent = parent.parentElement.closest("details")) parent.open = true;
  const line = document.createElement("p");
  line.className = "fault at-field";
  line.id = "fault-at-field";
  line.setAttribute("role", "alert");
  const name = document.createElement("code");
  name.textContent = field;
  line.append(name, ` ${message}`);
  element.setAttribute("aria-invalid", "true");
  element.setAttribute("aria-describedby", line.id);
  (element.closest(".row, label") ?? element).after(line);
}

function holder(field) {
  for (let parts = (field ?? "").split("."); parts.length && parts[0]; parts = parts.slice(0, -1)) {
    const found = [...document.querySelectorAll("[data-field]")].find((one) => one.dataset.field === parts.join("."));
    if (found) return found;
  }
  return null;
}
