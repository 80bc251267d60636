// The Hermes that can be had as a program is that of React Native 0.70: what it lacks and today's has.
if (!Array.prototype.at) {
  Array.prototype.at = function at(index) {
    return this[index < 0 ? this.length + index : index];
  };
}
